"""One step further with orders."""

from celery import shared_task

from certfleet.lifecycle.orders.advance import advance
from tasks.shell import run_members


@shared_task(name="certfleet.orders.advance")
def advance_orders(orders: dict[str, int]) -> None:
    """Bring orders forward as far as the CA lets us now. `orders`: app -> fence (0: none)."""
    run_members("order", orders, advance)
