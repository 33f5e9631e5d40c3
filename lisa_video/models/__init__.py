"""The networks: backbone seam, side branch, LISA decoder and their composition."""
