"""What a report shows: collected as plain data, drawn as SVG and small pictures, written as one HTML page.

:mod:`.collecting` gathers it, :mod:`.whole_page` makes the page of it. Everything that grows with the data or with
the run is bounded by :mod:`.limits`.
"""
