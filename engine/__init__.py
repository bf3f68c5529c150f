"""What every run shares: command line, run folder, checkpoints, loggers, pictures, prediction files."""
