"""`omg serve`: one process with a page in the browser and plain HTTP. Needs the extra `serve`."""
