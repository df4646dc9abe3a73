"""The rules of choice: `gates` accept or reject with a reason, `keys` order what was accepted (docs/semantics.md)."""
