"""One LightningModule per kind of problem: what is minimized, measured, compared with, shown and predicted."""
