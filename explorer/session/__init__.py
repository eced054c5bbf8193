"""The one door to a model, its SAE and their store: `Session`, and the `View` of one picture."""

from explorer.session.session import Session
from explorer.session.site import site_block
from explorer.session.view import View

__all__ = ["Session", "View", "site_block"]
