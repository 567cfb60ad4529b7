"""The emulated bench: chips, bus, clock and network around unmodified firmware and libraries."""
