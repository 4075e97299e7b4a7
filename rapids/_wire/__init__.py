"""The formats of entries and letters. Only this package and the scripts know the names of fields."""
