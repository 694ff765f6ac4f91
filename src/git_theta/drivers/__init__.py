"""What Git starts: the filter process. Its start-up path imports neither torch, zarr, rich nor click."""
