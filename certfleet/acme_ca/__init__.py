"""The CA: transport, accounts, orders, challenges (RFC 8555)."""
