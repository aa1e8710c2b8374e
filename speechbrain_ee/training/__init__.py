"""What learns: losses, schedules and Brain classes."""
