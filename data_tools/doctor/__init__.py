"""`lisa-video data doctor`: looks at every clip of a data set once, and writes a report that a person wants to read."""
