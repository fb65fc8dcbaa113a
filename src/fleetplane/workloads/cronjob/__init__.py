"""CronJob: makes Jobs by the clock."""
