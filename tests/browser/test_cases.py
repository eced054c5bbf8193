"""Cases, used as a person would: open a story, replay it, save one's own, send it on, bring it back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

Visit = Callable[..., Page]
Shoot = Callable[[Page, str], None]


def cases(page: Page) -> None:
    page.get_by_role("tab", name="Cases").click()
    page.locator("#shipped-cases .case").first.wait_for()


def told(page: Page, panel: str) -> str:
    """What a panel says once its answer is complete; the steered one once there is one."""
    page.locator(f"{panel} .text:not(.quiet)[aria-busy=false]").wait_for()
    return page.locator(panel).inner_text().strip()


def again(page: Page, address: str | None = None) -> Page:
    """The page opened anew in the same browser: what the browser kept is there, nothing else is."""
    fresh = page.context.new_page()
    fresh.set_default_timeout(60_000)
    fresh.goto(address or page.url)
    page.close()
    fresh.locator("#baseline .text:not(.quiet)[aria-busy=false]").wait_for()
    return fresh


def story(page: Page, title: str) -> Locator:
    return page.locator("#shipped-cases .case").filter(has=page.get_by_role("heading", name=title))


def settled(page: Page, title: str) -> None:
    """Wait until the workspace shows the picture and both answers of a case."""
    expect(page.locator("#stage .photo")).to_have_attribute("alt", title)
    expect(page.locator("#steered ins, #baseline del").first).to_be_visible()


def upload(page: Page, path: Path) -> None:
    page.locator("#case-desk input[type=file]").set_input_files(path)


def test_a_story_does_what_it_says(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    cases(page)
    expect(page.locator("#shipped-cases .case")).to_have_count(7)
    shoot(page, "cases-stories")
    story(page, "Phantom fork").get_by_role("button", name="Replay").click()
    expect(story(page, "Phantom fork").locator(".verdict")).to_have_text("holds")
    page.get_by_role("button", name="Replay all").click()
    page.get_by_role("button", name="Stop replaying").click()
    expect(page.get_by_role("button", name="Replay all")).to_be_visible()
    expect(story(page, "Phantom fork").locator(".verdict")).to_have_text("holds")
    expect(page.locator("#shipped-cases .verdict:has-text('replaying')")).to_have_count(0)
    story(page, "Phantom fork").get_by_role("button", name="Open in workspace").click()
    settled(page, "Phantom fork")
    assert "fork and knife" in told(page, "#baseline")
    assert told(page, "#steered") == "A dining table with a cake."
    expect(page.locator("#bench .row")).to_have_count(1)
    assert float(page.locator("#bench .row input[type=number]").first.input_value()) == -30
    shoot(page, "cases-opened")


def test_save_reload_and_replay(visit: Visit, shoot: Shoot, tmp_path: Path) -> None:
    page = visit()
    cases(page)
    story(page, "Bird alone").get_by_role("button", name="Open in workspace").click()
    settled(page, "Bird alone")
    both = told(page, "#baseline"), told(page, "#steered")
    cases(page)
    expect(page.locator("#case-preview")).to_contain_text("marked patches")
    page.get_by_label("Title").fill("A dog <of> my own")
    page.get_by_label("Notes").fill("Above the bird.\nTry 30.")
    with page.expect_download() as file:
        page.get_by_role("button", name="Download as file").click()
    file.value.save_as(tmp_path / "own.case.json")
    assert file.value.suggested_filename == "a-dog-of-my-own.case.json"
    kept = json.loads((tmp_path / "own.case.json").read_text(encoding="utf-8"))
    assert (kept["title"], kept["baseline"], kept["steered"]) == ("A dog <of> my own", *both)

    page = again(page)
    cases(page)
    upload(page, tmp_path / "own.case.json")
    settled(page, "A dog <of> my own")
    assert (told(page, "#baseline"), told(page, "#steered")) == both
    expect(page.locator("#bench .row")).to_have_count(3)
    expect(page.locator("#shelf .story")).to_contain_text("Try 30.")

    cases(page)
    page.get_by_role("button", name="Keep on this server").click()
    own = page.locator("#own-cases .case")
    expect(own).to_have_count(1)
    own.get_by_role("button", name="Replay").click()
    expect(own.locator(".verdict")).to_have_text("holds")
    shoot(page, "cases-kept")
    page = again(page)
    cases(page)
    own = page.locator("#own-cases .case")
    expect(own).to_have_count(1)
    own.get_by_role("button", name="Remove").click()
    expect(own).to_have_count(0)


def test_a_link_opens_the_case_for_somebody_else(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    cases(page)
    story(page, "Dog and chair").get_by_role("button", name="Open in workspace").click()
    settled(page, "Dog and chair")
    both = told(page, "#baseline"), told(page, "#steered")
    cases(page)
    page.get_by_role("button", name="Keep on this server").click()
    link = page.locator("#case-link a").inner_text()

    guest = visit()
    cases(guest)
    expect(guest.locator("#own-cases .case")).to_have_count(0)
    guest = again(guest, link)
    settled(guest, "Dog and chair")
    assert (told(guest, "#baseline"), told(guest, "#steered")) == both
    expect(guest.locator("#bench .row")).to_have_count(1)

    page.locator("#own-cases").get_by_role("button", name="Remove").click()
    expect(page.locator("#own-cases .case")).to_have_count(0)
    guest = again(guest, link)
    expect(guest.locator(".toast-body")).to_contain_text("The link does not open")
    expect(guest.locator("#stage .photo")).to_have_attribute("alt", "Phantom fork")
    assert told(guest, "#baseline")


def test_files_that_are_no_cases_change_nothing(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    cases(page)
    whole = tmp_path / "whole.case.json"
    with page.expect_download() as file:
        story(page, "Lone sheep").get_by_role("button", name="File").click()
    file.value.save_as(whole)
    spoilt = json.loads(whole.read_text(encoding="utf-8"))
    refusals = {
        "is empty": b"",
        "is damaged": whole.read_bytes()[:900],
        "in UTF-8": b"\xff\xfe\x00",
        "of version 9": json.dumps({**spoilt, "version": 9}).encode(),
        "unknown field": json.dumps({**spoilt, "more": 1}).encode(),
        "does not exist": json.dumps({**spoilt, "bench": [{"neuron": 10**7}]}).encode(),
        "not the image/png": json.dumps(
            {**spoilt, "picture": {"type": "image/png", "data": "AAAA"}}
        ).encode(),
    }
    for i, (words, data) in enumerate(refusals.items()):
        bad = tmp_path / f"bad{i}.case.json"  # a file of the same name is no change to the browser
        bad.write_bytes(data)
        upload(page, bad)
        expect(page.locator(".toast-body").first).to_contain_text(words)
        page.locator(".toast-close").first.click()
        expect(page.locator(".toast-body")).to_have_count(0)
    page.get_by_role("tab", name="Workspace").click()
    expect(page.locator("#stage .photo")).to_have_attribute("alt", "Phantom fork")
    expect(page.locator("#bench .row")).to_have_count(0)
    cases(page)
    upload(page, whole)
    settled(page, "Lone sheep")


def test_cases_fit_a_phone_and_the_dark(visit: Visit, shoot: Shoot) -> None:
    for name, how in {
        "cases-phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
        "cases-dark": {"color_scheme": "dark"},
        "cases-wide": {"viewport": {"width": 1920, "height": 1080}},
    }.items():
        page = visit(**how)
        cases(page)
        expect(page.locator("#case-preview .case")).to_be_visible()
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wide) <= 0, "nothing sticks out to the side"
        shoot(page, name)
