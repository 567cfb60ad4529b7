"""The Swan's pins that the firmware uses (circuitpython:ports/stm/boards/swan_r5/pins.c)."""

SCL = "PB06"
SDA = "PB07"
BUTTON_USR = "PC13"
board_id = "swan_r5"
