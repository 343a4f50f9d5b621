"""Layout for engines that return lines: orientation and reading order."""
