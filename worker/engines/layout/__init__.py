"""Layout for engines that return lines, and for PDF text layers: orientation, reading order, blocks with roles, tables."""
