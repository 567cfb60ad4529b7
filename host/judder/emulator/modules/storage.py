"""CircuitPython's storage: in boot.py the firmware may take the drive."""


def remount(mount_path, readonly=False):
    pass
