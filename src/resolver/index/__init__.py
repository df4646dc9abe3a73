"""Indexes: readers of mirror formats, the splitter, the local store, and the query over several mirrors."""
