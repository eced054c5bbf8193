"""The gallery, used as a person would: browse, filter, search, look at the whole SAE, take a neuron along."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, TimeoutError, expect

Visit = Callable[..., Page]
Shoot = Callable[[Page, str], None]


def gallery(page: Page) -> Locator:
    """Turn to the gallery; its tiles once they are there."""
    page.get_by_role("tab", name="Gallery").click()
    tiles = page.locator("#gallery-tiles .tile[data-neuron]")
    tiles.first.wait_for()
    return tiles


def total(page: Page) -> int:
    """How many neurons the head says there are."""
    words = page.locator("#gallery-head .count").inner_text()
    return int(words.split()[0].replace(",", ""))


def show(page: Page, view: str) -> None:
    """Turn to the cards or to a chart."""
    button = page.locator("#gallery-head").get_by_role("button", name=view, exact=True)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")


def point_at(page: Page) -> int:
    """Point at some neuron of the chart; its number."""
    dots = page.locator("#gallery-chart .point")
    dots.first.wait_for()
    label = page.locator("#gallery-chart .hovertext")
    for place in range(0, dots.count(), 7):
        box = dots.nth(place).bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] / 2 - 3, box["y"] + box["height"] / 2)
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        with contextlib.suppress(TimeoutError):
            found = re.search(r"#(\d+)", label.first.text_content(timeout=1000) or "")
            if found:
                return int(found[1])
    pytest.fail("no point says which neuron it is")


def test_browse_and_filter(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    tiles = gallery(page)
    expect(tiles).to_have_count(24)
    everything = total(page)
    shoot(page, "gallery-cards")

    first = tiles.first.get_attribute("data-neuron") or ""
    page.locator("#gallery-tiles .pager").get_by_role("button", name="Next").click()
    expect(tiles.first).not_to_have_attribute("data-neuron", first)
    expect(tiles).to_have_count(24)
    number = page.get_by_label("Page number")
    expect(number).to_have_value("2")
    number.fill("1")
    number.press("Enter")
    expect(tiles.first).to_have_attribute("data-neuron", first)

    page.get_by_label("image-specific").check()
    chips = page.locator("#gallery-head .chip")
    expect(chips).to_have_text([re.compile("image-specific")])
    some = total(page)
    assert 0 < some <= everything
    handle = page.get_by_label("Firing rate, at least")
    handle.focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    expect(chips).to_have_count(2)
    assert 0 < total(page) < some
    page.get_by_label("Sort by").select_option("fires")
    expect(page.get_by_role("button", name="Descending")).to_be_visible()
    shares = [float(words.strip(" %<")) for words in tiles.locator("dd:first-of-type").all_inner_texts()[::4]]
    assert shares == sorted(shares, reverse=True)
    shoot(page, "gallery-filtered")
    chips.nth(1).click()
    expect(chips).to_have_count(1)
    expect(handle).to_have_value("0")
    page.get_by_role("button", name="Clear all filters").click()
    expect(chips).to_have_count(0)
    expect(page.get_by_label("image-specific")).not_to_be_checked()
    assert total(page) == everything


def test_search_and_what_to_loosen(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    tiles = gallery(page)
    text = page.get_by_label("Search in names, labels, words and notes")
    text.fill("zzzz")
    expect(page.locator("#gallery-tiles .none")).to_contain_text("No neuron passes")
    page.get_by_label("image-specific").check()
    expect(page.locator("#gallery-tiles .none")).to_contain_text("Without “zzzz”")
    shoot(page, "gallery-empty")
    page.get_by_role("button", name="Without “zzzz”").click()
    expect(text).to_have_value("")
    tiles.first.wait_for()

    page.get_by_role("button", name="My picture", exact=True).click()
    expect(page.locator("#gallery-head .chip")).to_have_text([re.compile("like your picture")])
    expect(page.get_by_label("Sort by")).to_have_value("given")
    tiles.first.wait_for()
    like = tiles.nth(1).get_attribute("data-neuron") or ""
    tiles.nth(1).get_by_role("button", name="Similar").click()
    expect(page.locator("#gallery-head .chip")).to_have_text([re.compile(f"similar to neuron {like}")])
    expect(tiles.first).to_have_attribute("data-neuron", like)
    page.get_by_role("button", name="Marked patches").click()
    expect(page.locator(".toast-body").first).to_contain_text("No patch is marked")
    page.locator(".toast-close").first.click()

    page.get_by_role("button", name="Random neuron").click()
    expect(page.locator("#neuron-head")).to_contain_text("Back to the gallery")
    expect(page.locator("#gallery-list")).to_be_hidden()


def test_a_point_of_a_chart_opens_its_neuron(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    gallery(page)
    page.get_by_label("image-specific").check()
    expect(page.locator("#gallery-head .chip")).to_have_count(1)
    for view, titles in (("Overview", 1), ("Map", 0)):
        show(page, view)
        page.locator("#gallery-chart .point").first.wait_for()
        expect(page.locator("#gallery-chart .xtitle")).to_have_count(titles)  # not the former view's chart
        shoot(page, f"gallery-{view.lower()}")
    expect(page.locator("#gallery-caption")).to_contain_text("decoder directions")
    neuron = point_at(page)
    page.mouse.down()
    page.mouse.up()
    expect(page.locator("#neuron-head input").first).to_have_value(str(neuron))
    expect(page.locator("#gallery-list")).to_be_hidden()
    page.get_by_role("button", name="Back to the gallery").click()
    expect(page.locator("#gallery-chart .point").first).to_be_visible()
    expect(page.locator("#gallery-head .chip")).to_have_count(1)


def test_take_a_neuron_along(visit: Visit) -> None:
    page = visit()
    tiles = gallery(page)
    tile = tiles.nth(2)
    neuron = tile.get_attribute("data-neuron") or ""
    tile.locator(".star").click()
    expect(tile.locator(".star")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("List", exact=True).select_option("favourites")
    expect(tiles).to_have_count(1)
    expect(tiles.first).to_have_attribute("data-neuron", neuron)
    tiles.first.get_by_role("button", name="To the bench").click()
    expect(page.get_by_role("tab", name="Workspace")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#bench .row")).to_have_count(1)
    page.get_by_role("tab", name="Gallery").click()
    tiles.first.get_by_role("button", name="On my picture").click()
    expect(page.get_by_role("tab", name="Workspace")).to_have_attribute("aria-selected", "true")
    page.get_by_role("tab", name="Gallery").click()
    tiles.first.locator(".star").click()
    expect(page.locator("#gallery-tiles .none")).to_be_visible()


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("gallery-dark", {"color_scheme": "dark"}),
        ("gallery-phone", {"viewport": {"width": 390, "height": 844}, "has_touch": True}),
        ("gallery-wide", {"viewport": {"width": 1920, "height": 1080}}),
    ],
)
def test_it_fits_the_screen(visit: Visit, shoot: Shoot, name: str, how: dict) -> None:
    page = visit(**how)
    gallery(page)
    shoot(page, name)
    for view in ("Cards", "Map"):
        show(page, view)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"nothing sticks out to the side in {view}"
    page.locator("#gallery-chart .point").first.wait_for()
    shoot(page, f"{name}-map")
