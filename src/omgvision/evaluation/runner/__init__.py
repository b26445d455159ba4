"""`omg evaluate`: a model on a benchmark, from its pictures to prediction files, numbers and a report."""
