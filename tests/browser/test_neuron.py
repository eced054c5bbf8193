"""A neuron's own page, used as a person would: open it from a card, look closely, name it, steer with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

Visit = Callable[..., Page]
Shoot = Callable[[Page, str], None]


def open_first_card(page: Page) -> str:
    """Open the page of the first card of the workspace; its number."""
    opener = page.locator("#cards [data-do=page]").first
    neuron = str(json.loads(opener.get_attribute("data-with") or "{}")["neuron"])
    opener.click()
    expect(page.locator("#neuron-head .ways")).to_have_attribute("data-neuron", neuron)
    return neuron


def go_to(page: Page, neuron: str) -> None:
    box = page.locator("#neuron-head input[name=neuron]")
    box.fill(neuron)
    box.press("Enter")
    expect(page.locator("#neuron-head .ways")).to_have_attribute("data-neuron", neuron)


def save(page: Page, name: str, note: str) -> None:
    page.get_by_label("Own name").fill(name)
    page.locator("#neuron-note").fill(note)
    expect(page.locator("#neuron-keeping .told")).to_have_text("Not saved yet.")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#neuron-keeping .told")).to_have_text("Saved.")


def test_from_a_card_to_exemplars_notes_lists_and_back(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    neuron = open_first_card(page)
    expect(page.locator("#gallery-list")).to_be_hidden()
    expect(page.locator("#neuron-here")).to_contain_text("Strongest at row")
    expect(page.locator("#neuron-numbers .mark.yours")).to_have_count(2)
    expect(page.locator("#neuron-sheet .strong .tile").first).to_be_visible()
    shoot(page, "neuron-page")

    page.get_by_role("button", name="Favourite").click()
    expect(page.locator("#neuron-head .star")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("Own name").fill("half-typed")
    page.get_by_label("Add to a list, old or new").fill("seen at breakfast")
    page.keyboard.press("Enter")
    chips = page.locator("#neuron-keeping .chips .chip span")
    expect(chips).to_have_text(["favourites", "seen at breakfast"])
    assert page.get_by_label("Own name").input_value() == "half-typed", "what is typed stays"

    name = "breakfast <b>table</b>"
    save(page, name, "two lines\n<script>of code</script>")
    expect(page.locator("#neuron-head h2")).to_have_text(name)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export all notes and lists").click()
    exported = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert exported["notes"][0]["name"] == name and len(exported["lists"]) == 2

    page.get_by_role("tab", name="Workspace").click()
    expect(page.locator("#cards .card .name").first).to_have_text(name)
    again = visit()
    go_to(again, open_first_card(again))
    assert neuron == again.locator("#neuron-head .ways").get_attribute("data-neuron")
    assert again.locator("#neuron-note").input_value() == "two lines\n<script>of code</script>"
    shoot(again, "neuron-notes")
    again.locator("#neuron-keeping .chips button").first.click()
    expect(again.locator("#neuron-head .star")).to_have_attribute("aria-pressed", "false")
    again.locator("#neuron-keeping .chips button").first.click()
    expect(again.locator("#neuron-keeping .lists")).to_contain_text("in no list")
    save(again, "", "")
    again.get_by_role("button", name="Back to the gallery").click()
    expect(again.locator("#gallery-list")).to_be_visible()
    expect(again.locator("#neuron-page")).to_be_hidden()


def test_exemplars_are_enlarged_and_walked_by_keyboard(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    open_first_card(page)
    tiles, dialog = page.locator("#neuron-sheet .strong .tile"), page.locator("dialog.lens")
    total = tiles.count()
    tiles.nth(1).focus()
    page.keyboard.press("Enter")
    expect(dialog.locator("h2")).to_have_text(f"Exemplar 2 of {total}")
    expect(dialog.locator("img.heat")).to_be_visible()
    shoot(page, "neuron-exemplar")
    former = dialog.locator("img.photo").get_attribute("src")
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("h2")).to_have_text(f"Exemplar 3 of {total}")
    assert dialog.locator("img.photo").get_attribute("src") != former
    for _ in range(7):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('dialog') !== null"), "the focus stays inside"
    dialog.get_by_label("Heat").fill("0.2")
    expect(dialog.locator("img.heat")).to_have_css("opacity", "0.2")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement.dataset.rank") == "2", "the focus is where one left"


def test_from_neuron_to_neuron_to_the_workspace(visit: Visit) -> None:
    page = visit()
    first = open_first_card(page)
    similar = page.locator("#neuron-sheet section", has_text="Similar neurons").locator(".other").first
    other = str(json.loads(similar.get_attribute("data-with") or "{}")["neuron"])
    assert other != first
    similar.click()
    expect(page.locator("#neuron-head .ways")).to_have_attribute("data-neuron", other)
    assert page.evaluate("window.scrollY") == 0
    page.get_by_role("button", name="More in the gallery").click()
    expect(page.locator("#gallery-head .chip")).to_have_text([re.compile(f"similar to neuron {other}")])
    expect(page.locator("#neuron-sheet")).to_be_hidden()
    page.locator("#gallery-tiles .open").first.click()

    go_to(page, first)
    page.get_by_role("button", name="Next neuron").click()
    expect(page.locator("#neuron-head .ways")).to_have_attribute("data-neuron", str(int(first) + 1))
    page.get_by_role("button", name="Previous neuron").click()
    expect(page.locator("#neuron-head .ways")).to_have_attribute("data-neuron", first)
    for _ in range(2):
        page.get_by_role("button", name="Try on my picture").click()
        expect(page.locator("#stage")).to_be_visible()
        expect(page.locator("#cards .card.chosen")).to_have_count(1)
        page.get_by_role("tab", name="Gallery").click()
    page.get_by_role("button", name="Steer with it").click()
    expect(page.locator("#bench .row")).to_have_count(1)
    expect(page.locator("#bench")).to_be_visible()


def test_links_lead_to_a_page_or_to_the_gallery(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    neuron = open_first_card(page)
    link = page.locator("#neuron-head .copy").get_attribute("data-copy") or ""
    assert link == f"?neuron={neuron}"
    home = page.url.partition("?")[0]
    linked = page.context.new_page()
    linked.goto(home + link)
    expect(linked.locator("#neuron-head .ways")).to_have_attribute("data-neuron", neuron)
    expect(linked.locator("#neuron-here")).to_contain_text("Strongest at row")
    linked.set_viewport_size({"width": 390, "height": 844})
    assert linked.evaluate("document.documentElement.scrollWidth") <= 390, "nothing runs over the edge"
    shoot(linked, "neuron-phone")
    nowhere = page.context.new_page()
    nowhere.goto(f"{home}?neuron=<b>65")
    expect(nowhere.locator(".toast-body")).to_contain_text("does not exist")
    expect(nowhere.locator("#gallery-list")).to_be_visible()
    expect(nowhere.locator("#neuron-page")).to_be_hidden()


def test_back_and_forward_lead_through_the_pages(visit: Visit) -> None:
    """As the browser's buttons do everywhere: from where one came, and to the tab that was in front."""
    page = visit()
    first = open_first_card(page)
    assert page.url.endswith(f"?neuron={first}")
    ways = page.locator("#neuron-head .ways")
    page.get_by_role("button", name="Next neuron").click()
    second = str(int(first) + 1)
    expect(ways).to_have_attribute("data-neuron", second)
    page.go_back()
    expect(ways).to_have_attribute("data-neuron", first)
    page.go_back()
    expect(page.get_by_role("tab", name="Workspace")).to_have_attribute("aria-selected", "true")
    expect(ways).to_have_count(0)
    assert "neuron" not in page.url
    for neuron in (first, second):
        page.go_forward()
        expect(page.get_by_role("tab", name="Gallery")).to_have_attribute("aria-selected", "true")
        expect(ways).to_have_attribute("data-neuron", neuron)
    page.get_by_role("button", name="Back to the gallery").click()
    expect(page.locator("#gallery-list")).to_be_visible()
    assert "neuron" not in page.url
    page.go_back()
    expect(ways).to_have_attribute("data-neuron", second)
    linked = page.context.new_page()
    linked.goto(page.url)
    expect(linked.locator("#neuron-head .ways")).to_have_attribute("data-neuron", second)
    linked.get_by_role("button", name="Previous neuron").click()
    expect(linked.locator("#neuron-head .ways")).to_have_attribute("data-neuron", first)
    linked.go_back()
    expect(linked.locator("#neuron-head .ways")).to_have_attribute("data-neuron", second)


def test_the_gallery_is_as_one_left_it(visit: Visit) -> None:
    page = visit()
    page.get_by_role("tab", name="Gallery").click()
    pager = page.locator("#gallery-list .pager input").first
    pager.fill("3")
    pager.press("Enter")
    opener = page.locator("#gallery-tiles [data-do=page]").last
    expect(page.locator("#gallery-tiles .tile").first).to_have_attribute("data-neuron", "48")
    opener.scroll_into_view_if_needed()
    wanted = json.loads(opener.get_attribute("data-with") or "{}")["neuron"]
    opener.click()
    expect(page.locator("#neuron-head .ways")).to_have_attribute("data-neuron", str(wanted))
    assert page.evaluate("window.scrollY") == 0
    page.get_by_role("button", name="Back to the gallery").click()
    expect(page.locator("#gallery-list")).to_be_visible()
    page.wait_for_function("window.scrollY > 0")
    expect(page.locator("#gallery-tiles .tile").first).to_have_attribute("data-neuron", "48")
    page.wait_for_function("document.activeElement.closest('#gallery-tiles') !== null")
