"""How well a world model foretells recorded films: measures, gate, record and page."""
