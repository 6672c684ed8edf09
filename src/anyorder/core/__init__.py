"""Types, protocols, noise, categorical draws, schedules, configuration, logging: what every other folder may import."""
