"""Bench, settings and answers, used as a person would: pull sliders, read what changes, undo, pin, keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

Visit = Callable[..., Page]
Shoot = Callable[[Page, str], None]

STEERED = "#steered .text:not(.quiet)[aria-busy=false]"


def said(page: Page, panel: str) -> str:
    """What a panel says once its answer is complete."""
    page.locator(f"{panel} [aria-busy=false]").wait_for()
    return page.locator(f"{panel} .text").inner_text().strip()


def put(page: Page, count: int = 1) -> None:
    """The first neurons of the cards onto the bench."""
    for i in range(count):
        page.locator("#cards .put").nth(i).click()
        expect(page.locator("#bench .row")).to_have_count(i + 1)


def number(page: Page, row: int = 0) -> Locator:
    return page.locator("#bench .row").nth(row).locator("input[type=number]")


def slider(page: Page, row: int = 0) -> Locator:
    return page.locator("#bench .row").nth(row).locator("input[type=range]")


def type_value(page: Page, row: int, value: str) -> None:
    number(page, row).fill(value)
    number(page, row).press("Enter")


def steer_hard(page: Page) -> str:
    """Put three neurons on the bench and pull them until the answer differs; a changed answer.

    More answers to the same pulls may follow it.
    """
    before = said(page, "#baseline")
    put(page, 3)
    for value in ("-100", "100", "-400", "400", "2000"):
        for i in range(3):
            page.locator("#bench .row").nth(i).get_by_label("Region of").select_option("all")
            type_value(page, i, value)
        for _ in range(100):
            page.wait_for_timeout(100)
            after = page.locator("#steered .text:not(.quiet)")
            busy = page.locator("#steered [aria-busy=true]").count()
            if not busy and after.count() and after.inner_text().strip() not in ("", before):
                return after.inner_text().strip()
    pytest.fail("no edit changed the answer")


def tool(page: Page, name: str) -> Locator:
    return page.locator(f"#steps [data-tool={name}]")


def test_slide_to_minus_thirty_and_watch_the_caption(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    expect(page.locator("#gauges .none")).to_be_visible()
    put(page)
    assert "moved" not in (page.locator("#bench .row").get_attribute("class") or "")
    expect(page.locator("#steered")).to_contain_text("slider")
    slider(page).focus()
    page.keyboard.press("Home")
    expect(number(page)).to_have_value("-100")
    for _ in range(7):
        page.keyboard.press("PageUp")
    expect(number(page)).to_have_value("-30")
    page.locator(STEERED).wait_for()
    expect(page.locator("#gauges .none")).to_have_count(0)
    expect(page.locator("#gauges .value").first).to_contain_text("%")
    shoot(page, "answers-slid")
    page.locator("#bench").get_by_label("Apply").uncheck()
    expect(page.locator("#steered")).to_contain_text("slider")
    page.locator("#bench").get_by_label("Apply").check()
    page.locator(STEERED).wait_for()
    page.locator("#bench").get_by_label("Back to rest").click()
    expect(page.locator("#steered")).to_contain_text("slider")
    expect(page.locator("#gauges .none")).to_be_visible()


def test_sliders_by_keyboard_and_undo_where_the_focus_stays(visit: Visit) -> None:
    page = visit()
    put(page)
    type_value(page, 0, "10")
    slider(page).focus()
    for key, value in (
        ("ArrowRight", "11"),
        ("ArrowDown", "10"),
        ("Shift+ArrowLeft", "0"),
        ("PageDown", "-10"),
        ("End", "100"),
        ("Home", "-100"),
    ):
        page.keyboard.press(key)
        expect(number(page)).to_have_value(value)
    type_value(page, 0, "10")
    slider(page).focus()
    page.keyboard.press("End")
    page.keyboard.press("Control+z")
    expect(number(page)).to_have_value("10")
    expect(slider(page)).to_be_focused()
    page.keyboard.press("Control+z")
    expect(number(page)).to_have_value("-100")
    page.keyboard.press("Control+Shift+z")
    expect(number(page)).to_have_value("10")
    page.locator(STEERED).wait_for()
    while tool(page, "undo").is_enabled():
        tool(page, "undo").click()
    expect(page.locator("#bench .row")).to_have_count(0)
    tool(page, "redo").click()
    expect(page.locator("#bench .row")).to_have_count(1)


def test_a_dragged_slider_ends_on_its_last_place_and_is_one_step(visit: Visit) -> None:
    page = visit()
    put(page)
    box = slider(page).bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    for step in range(20):
        page.mouse.move(box["x"] + box["width"] * (0.5 - step / 50), y)
    page.mouse.up()
    assert float(number(page).input_value()) < -60
    page.locator(STEERED).wait_for()
    tool(page, "undo").click()
    expect(number(page)).to_have_value("")
    expect(page.locator("#steered")).to_contain_text("slider")


def test_changed_words_pins_and_their_way_back(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    steer_hard(page)
    expect(page.locator("#steered ins, #baseline del").first).to_be_visible()
    page.get_by_role("button", name="Pin").click()
    expect(page.locator("#pinned .pin")).to_have_count(1)
    pinned = page.locator("#pinned .said").inner_text().strip()
    assert pinned != said(page, "#baseline")
    page.locator("#sae-alone .toggle").click()
    assert said(page, "#sae-alone")
    shoot(page, "answers-pinned")
    page.get_by_role("button", name="Reset all").click()
    expect(page.locator("#steered")).to_contain_text("slider")
    expect(page.locator("#baseline del")).to_have_count(0)
    page.get_by_role("button", name="Put back on the bench").click()
    expect(page.locator("#bench .moved").first).to_be_visible()
    expect(page.locator("#steered .text")).to_have_text(pinned)
    page.get_by_role("button", name="Remove pinned answer 1").click()
    expect(page.locator("#pinned .pin")).to_have_count(0)


def test_cns_and_decoding_fold_out_and_steer(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    settings = page.locator("#settings")
    expect(settings.get_by_label("Noise step t")).to_have_count(0)
    settings.get_by_label("Contrast with noise").check()
    expect(settings.get_by_label("Noise step t").first).to_be_visible()
    page.locator(STEERED).wait_for()
    shoot(page, "answers-cns")
    tool(page, "undo").click()
    expect(settings.get_by_label("Contrast with noise")).not_to_be_checked()
    expect(page.locator("#steered")).to_contain_text("slider")
    settings.get_by_label("Decoding", exact=True).select_option("icd")
    expect(settings.get_by_label("alpha")).to_be_visible()
    page.locator(STEERED).wait_for()
    settings.get_by_label("Decoding", exact=True).select_option("plain")
    expect(page.locator("#steered")).to_contain_text("slider")
    expect(settings.get_by_label("Top-p")).to_have_count(0)
    heat = settings.locator("[data-at='temperature number']")
    heat.fill("0.8")
    heat.press("Enter")
    expect(settings.get_by_label("Top-p").first).to_be_visible()
    page.locator(STEERED).wait_for()
    seed = settings.get_by_label("Sampling seed")
    former = seed.input_value()
    settings.get_by_label("Draw another answer").click()
    expect(seed).not_to_have_value(former)
    page.locator(STEERED).wait_for()


def test_a_shorter_answer_is_shorter_on_both_sides(visit: Visit) -> None:
    page = visit()
    whole = said(page, "#baseline")
    length = page.get_by_label("Longest answer, in tokens")
    length.fill("3")
    length.press("Enter")
    expect(page.locator("#baseline .text")).not_to_have_text(whole)
    assert len(said(page, "#baseline").split()) <= 3
    tool(page, "undo").click()
    expect(page.locator("#baseline .text")).to_have_text(whole)


def test_presets_of_the_page_and_of_a_person(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    put(page)
    type_value(page, 0, "-40")
    tool(page, "presets").click()
    shoot(page, "answers-presets")
    page.get_by_role("button", name="Gentle CNS").first.click()
    expect(page.locator("[data-at='step number']")).to_have_value("300")
    expect(page.locator("#bench .row")).to_have_count(1)
    tool(page, "presets").click()
    tool(page, "name").fill("mine")
    tool(page, "save").click()
    expect(tool(page, "said")).to_contain_text("mine")
    page.get_by_role("button", name="Empty bench").click()
    expect(page.locator("#bench .row")).to_have_count(0)
    expect(page.get_by_label("Contrast with noise")).not_to_be_checked()
    address, page = page.url, page.context.new_page()
    page.goto(address)
    page.locator("#baseline [aria-busy=false]").wait_for()
    tool(page, "presets").click()
    page.locator("#steps .preset", has_text="mine").click()
    expect(number(page)).to_have_value("-40")
    expect(page.locator("[data-at='step number']")).to_have_value("300")
    page.locator(STEERED).wait_for()
    tool(page, "presets").click()
    page.get_by_label("Forget preset mine").click()
    expect(page.locator("#steps .preset", has_text="mine")).to_have_count(0)


def test_words_are_reached_by_keyboard_with_one_stop_for_tab(visit: Visit) -> None:
    page = visit()
    said(page, "#baseline")
    words = page.locator("#baseline .word")
    expect(page.locator("#baseline .word[tabindex='0']")).to_have_count(1)
    count = words.count()
    words.first.focus()
    for key, place in (("ArrowRight", 1), ("End", count - 1), ("ArrowLeft", count - 2), ("Home", 0)):
        page.keyboard.press(key)
        expect(words.nth(place)).to_be_focused()
        expect(words.nth(place)).to_have_attribute("tabindex", "0")
    expect(page.locator("#baseline .word[tabindex='0']")).to_have_count(1)


def test_questions_are_asked_and_regions_follow_a_search(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    chip = page.locator("#questions .chip").nth(1)
    question = chip.inner_text()
    chip.click()
    expect(page.locator("#questions .chip").nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#asker textarea, #asker input").first).to_have_value(question)
    assert said(page, "#baseline")
    page.locator("#finder textarea, #finder input").first.fill("cake")
    page.locator("#finder button").click()
    expect(page.locator("#cards h2")).to_have_text("“cake”")
    page.get_by_role("button", name="Put the best three on the bench").click()
    expect(page.locator("#bench .row")).to_have_count(3)
    region = page.locator("#bench .row").first.get_by_label("Region of")
    expect(region.locator("option", has_text="where cake is seen")).to_have_count(1)
    region.select_option("seen")
    type_value(page, 0, "-15")
    page.locator(STEERED).wait_for()
    shoot(page, "answers-found")


def test_two_visitors_with_different_sliders(visit: Visit) -> None:
    one, two = visit(), visit()
    for page, value in ((one, "-100"), (two, "100")):
        put(page)
        page.locator("#bench").get_by_label("Region of").select_option("all")
        type_value(page, 0, value)
    for page, value in ((one, "-100"), (two, "100")):
        page.locator(STEERED).wait_for()
        expect(number(page)).to_have_value(value)
        page.get_by_role("button", name="Pin").click()
        expect(page.locator("#pinned .done")).to_contain_text(f"set to {value.replace('-', '−')} everywhere")
        expect(page.locator("#pinned .pin")).to_have_count(1)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("answers-dark", {"color_scheme": "dark"}),
        ("answers-phone", {"viewport": {"width": 390, "height": 844}, "has_touch": True}),
        ("answers-wide", {"viewport": {"width": 1920, "height": 1080}}),
    ],
)
def test_bench_and_settings_fit_the_screen(visit: Visit, shoot: Shoot, name: str, how: dict) -> None:
    page = visit(**how)
    put(page, 3)
    type_value(page, 0, "-60")
    page.get_by_label("Contrast with noise").check()
    page.locator(STEERED).wait_for()
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, "nothing sticks out to the side"
    inside = "[...document.querySelectorAll('#bench-row :is(button, select, input)')].filter(e => {"
    inside += "const r = e.getBoundingClientRect(); return r.width && (r.right > innerWidth || r.left < 0)"
    inside += "}).length"
    assert page.evaluate(inside) == 0
    shoot(page, name)
