"""One self-contained HTML page: charts from plain numbers, and the page around them. Knows no framework."""
