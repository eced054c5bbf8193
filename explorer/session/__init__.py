"""The one door to a model, its SAE and their store: `Session`, and the `View` of one picture."""

from explorer.session.inside import SteeredView
from explorer.session.session import Arm, Arms, Options, Session
from explorer.session.site import site_block
from explorer.session.stored import BUILD_COMMAND
from explorer.session.view import Draw, Noisy, View

__all__ = [
    "BUILD_COMMAND",
    "Arm",
    "Arms",
    "Draw",
    "Noisy",
    "Options",
    "Session",
    "SteeredView",
    "View",
    "site_block",
]
