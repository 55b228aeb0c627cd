"""The pure core: decides what ought to be, does no I/O and reads no clock."""
