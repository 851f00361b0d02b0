"""Op records by family; importing this package defines every op."""
