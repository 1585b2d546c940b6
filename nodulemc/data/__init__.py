"""From the files of public data sets to the input of training."""
