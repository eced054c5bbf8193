"""Every main view, light and dark, under axe-core: no serious or critical violation in what is ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

NOT_OURS = [
    [".toast-wrap"],  # the framework's messages: a button in a heading that is a button, too
    [".modebar-container"],  # the tools that plotly draws over a chart while the mouse is there
]
GRAVE = ("serious", "critical")


def grave(page: Page, view: str) -> list[str]:
    """What axe finds grave in the page as it stands: rule, element, and why."""
    found = Axe().run(page, context={"exclude": NOT_OURS}).response["violations"]
    return [
        f"{view}: {rule['id']} ({rule['impact']}) at {node['target']}: {node['failureSummary']}"
        for rule in found
        if rule["impact"] in GRAVE
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_workspace(visit: Callable[..., Page], scheme: str) -> None:
    page = visit(color_scheme=scheme)
    found = grave(page, "opened")
    page.locator(".health summary").click()
    page.locator("#cards .card").first.locator("[data-do=put]").click()
    page.locator("#bench input[type=range]").first.wait_for()
    page.locator("#bench input[type=range]").first.press("Home")
    expect(page.locator("#steered [aria-busy=false]")).to_be_visible()
    found += grave(page, "steered")
    page.keyboard.press("Escape")
    page.locator("#baseline .word").nth(1).click()
    page.locator("#cards [data-do=put]").first.wait_for()
    page.get_by_role("button", name="Look closer").click()
    page.locator("#why-map").wait_for()
    found += grave(page, "a word asked about")
    assert found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_gallery_a_neuron_and_the_cases(visit: Callable[..., Page], scheme: str) -> None:
    page = visit(color_scheme=scheme)
    page.get_by_role("tab", name="Gallery").click()
    page.locator("#gallery-tiles [data-do=page]").first.wait_for()
    found = grave(page, "cards")
    for view in ("Overview", "Map"):
        page.locator("#gallery-head").get_by_role("button", name=view).click()
        page.locator("#gallery-chart .main-svg").first.wait_for()
        found += grave(page, view)
    page.locator("#gallery-head").get_by_role("button", name="Cards").click()
    page.locator("#gallery-tiles [data-do=page]").first.click()
    page.locator("#neuron-head h2").first.wait_for()
    page.locator("#neuron-sheet img").first.wait_for()
    found += grave(page, "a neuron")
    page.get_by_role("tab", name="Cases").click()
    page.locator("#shipped-cases button").first.wait_for()
    found += grave(page, "cases")
    assert found == []


def test_a_phone_and_that_axe_sees_what_is_wrong(visit: Callable[..., Page]) -> None:
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True)
    found = grave(page, "workspace")
    page.get_by_role("tab", name="Gallery").click()
    page.locator("#gallery-tiles [data-do=page]").first.wait_for()
    found += grave(page, "gallery")
    assert found == []
    page.locator("#title h1").evaluate("title => { title.outerHTML = '<button></button><img src=\"\">'; }")
    spoilt = " ".join(grave(page, "spoilt"))
    assert "button-name" in spoilt and "image-alt" in spoilt
