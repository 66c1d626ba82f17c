"""The processes: Celery app, event loop, responder, embedded Redis, the one-machine stack."""
