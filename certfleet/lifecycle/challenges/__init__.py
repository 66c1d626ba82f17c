"""How control of an order's names is shown: by responder, hosts or DNS, and records that stand."""
