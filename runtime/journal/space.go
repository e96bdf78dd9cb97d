package journal

// reserveFile is given up when the disk is full.
const reserveFile = "reserve"
