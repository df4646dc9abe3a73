"""Proof that fetched bytes are the right ones: signature, policy, binding."""
