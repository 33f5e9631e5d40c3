"""Tools that turn videos into pose data sets (kept free of code: `data_tools` is a common name)."""
