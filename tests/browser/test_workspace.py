"""Picture and neurons, used as a person would: look, brush patches, read maps, search, bring pictures."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from explorer.world import draw

Visit = Callable[..., Page]
Shoot = Callable[[Page, str], None]
Place = tuple[int, int]


def said(page: Page, panel: str) -> str:
    """What a panel says once its answer is complete."""
    page.locator(f"{panel} [aria-busy=false]").wait_for()
    return page.locator(panel).inner_text().strip()


def grid(page: Page) -> Place:
    cover = page.locator("#stage .cover")
    return int(cover.get_attribute("data-rows") or 0), int(cover.get_attribute("data-cols") or 0)


def middle(page: Page, place: Place) -> tuple[float, float]:
    """The middle of a patch, in pixels of the window."""
    page.locator("#stage .cover").scroll_into_view_if_needed()
    box, (rows, cols) = page.locator("#stage .cover").bounding_box(), grid(page)
    assert box
    row, col = place
    return box["x"] + (col + 0.5) * box["width"] / cols, box["y"] + (row + 0.5) * box["height"] / rows


def brush(page: Page, *places: Place, keys: tuple[str, ...] = ()) -> None:
    """Press on the first patch, go over the others, let go; with keys held down."""
    for key in keys:
        page.keyboard.down(key)
    page.mouse.move(*middle(page, places[0]))
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*middle(page, place), steps=3)
    page.mouse.up()
    for key in keys:
        page.keyboard.up(key)


def heading(page: Page) -> Locator:
    return page.locator("#cards h2")


def marked(page: Page) -> str | None:
    return page.locator("#stage .cover").get_attribute("data-marked")


def upload(page: Page, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)


def test_upload_brush_and_read_maps(visit: Visit, shoot: Shoot, tmp_path: Path) -> None:
    page = visit()
    shoot(page, "workspace-start")
    photo = page.locator("#stage .photo")
    former = photo.get_attribute("src") or ""
    draw(7, "ordinary", size=448).image.save(tmp_path / "mine.png")
    upload(page, tmp_path / "mine.png")
    expect(photo).not_to_have_attribute("src", former)
    expect(page.locator("#shelf")).to_contain_text("Your own picture")
    expect(page.locator("#shelf [aria-pressed=true]")).to_have_count(0)
    assert said(page, "#baseline") and page.locator("#cards .card").count() > 5

    rows, cols = grid(page)
    assert rows >= 12 and cols >= 12
    brush(page, (5, 4), (5, 6), (6, 6), (6, 4))
    expect(heading(page)).to_have_text("6 patches")
    assert marked(page) == "[[5,4],[5,5],[5,6],[6,4],[6,5],[6,6]]"
    assert page.locator("#stage .marks .inner").get_attribute("d"), "the marked set is drawn"
    expect(page.locator("#stage .legend")).to_contain_text("6 patches")
    expect(page.locator("#stage .heat")).to_be_visible()
    assert page.locator("#cards .card.chosen .thumb").count() > 6, "the chosen neuron shows all its exemplars"
    expect(page.locator("#cards .card .histogram").first).to_be_visible()
    expect(page.locator("#cards .card .badge").first).to_be_visible()

    page.mouse.move(*middle(page, (5, 5)))
    here = page.locator("#stage .here")
    expect(here).to_have_text(re.compile(r"^Row 6, column 6: [0-9.]+$"))
    high = float(page.locator("#stage .scale").get_attribute("data-high") or 0)
    assert 0 <= float(here.inner_text().split(": ")[1]) <= high + 0.01
    page.get_by_role("button", name="max", exact=True).click()
    expect(page.locator("#cards")).to_contain_text("at their strongest one")
    assert heading(page).inner_text() == "6 patches"

    page.locator("#stage [data-raw]").check()
    page.locator("#stage [data-grid]").uncheck()
    page.locator("#stage [data-heat]").fill("0.4")
    heat = "getComputedStyle(document.querySelector('#stage .heat'))"
    assert page.evaluate(f"[{heat}.imageRendering, {heat}.opacity]") == ["pixelated", "0.4"]
    expect(page.locator("#stage .grid")).to_be_hidden()
    shoot(page, "workspace-brushed")


def test_marks_are_added_and_removed_and_the_bench_knows_them(visit: Visit) -> None:
    page = visit()
    brush(page, (3, 3))
    expect(heading(page)).to_have_text("Patch 4, 4")
    brush(page, (8, 8), (8, 9), keys=("Shift",))
    expect(heading(page)).to_have_text("3 patches")
    brush(page, (3, 3), keys=("Alt",))
    expect(heading(page)).to_have_text("2 patches")
    assert marked(page) == "[[8,8],[8,9]]"
    page.locator("#cards .put").first.click()
    region = page.locator("#bench .row").first.get_by_label("Region of")
    expect(region.locator("option", has_text="2 marked patches")).to_have_count(1)
    brush(page, (1, 1))
    expect(heading(page)).to_have_text("Patch 2, 2")
    page.locator("#stage .clear").click()
    expect(heading(page)).to_have_text("Whole picture")
    assert marked(page) == "" and page.locator("#stage .clear").count() == 0


def test_patches_and_neurons_by_keyboard_and_the_way_back(visit: Visit) -> None:
    page = visit()
    page.locator("#stage .cover").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    rows, cols = grid(page)
    expect(heading(page)).to_have_text(f"Patch {rows // 2 + 3}, {cols // 2 + 1}")
    for key in ("Shift+ArrowRight", "Shift+ArrowUp"):
        page.keyboard.press(key)
    expect(heading(page)).to_have_text("3 patches")
    expect(page.locator("#stage .here")).to_contain_text(f"Row {rows // 2 + 2}, column {cols // 2 + 2}")
    page.keyboard.press("Escape")
    expect(heading(page)).to_have_text("Whole picture")
    brush(page, (2, 2), (2, 4))
    expect(heading(page)).to_have_text("3 patches")
    page.locator("#cards .back").click()
    expect(heading(page)).to_have_text("Whole picture")
    assert marked(page) == ""
    page.locator("#cards .choose").nth(2).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#cards .card").nth(2)).to_have_class("card chosen")
    expect(page.locator("#stage .heat")).to_be_visible()
    page.locator("#cards .choose").nth(2).click()
    expect(page.locator("#stage .heat")).to_be_hidden()
    page.get_by_role("button", name="max", exact=True).click()
    expect(page.get_by_role("button", name="max", exact=True)).to_have_attribute("aria-pressed", "true")


def test_quick_clicks_end_on_the_last_one(visit: Visit) -> None:
    page = visit()
    for clicked in ([4, 2, 6], [5, 1, 3], [0, 6, 2]):
        page.evaluate(
            "(some) => some.forEach((i) => document.querySelectorAll('#cards .choose')[i].click())", clicked
        )
        expect(page.locator("#cards .card").nth(clicked[-1])).to_have_class("card chosen")
        page.wait_for_timeout(300)  # an older answer would come now
        expect(page.locator("#cards .card").nth(clicked[-1])).to_have_class("card chosen")
        expect(page.locator("#cards .card.chosen")).to_have_count(1)
    page.evaluate("[1, 3, 5].forEach((i) => document.querySelectorAll('#cards .put')[i].click())")
    expect(page.locator("#bench .row")).to_have_count(3)


def test_the_search_finds_or_says_what_to_try(visit: Visit, shoot: Shoot) -> None:
    page = visit()
    words = page.locator("#finder textarea, #finder input").first
    words.fill("cake")
    page.locator("#finder button").click()
    expect(heading(page)).to_have_text("“cake”")
    expect(page.locator("#cards .card.chosen")).to_have_count(1)
    expect(page.locator("#stage .what")).to_have_text(re.compile(r"[0-9]+$"))
    page.get_by_role("button", name="Put the best three on the bench").click()
    expect(page.locator("#bench .row")).to_have_count(3)
    shoot(page, "workspace-found")
    words.fill("unicorn")
    words.press("Enter")
    expect(page.locator("#cards .empty")).to_contain_text("Try one plain word, such as")
    words.fill("")
    words.press("Enter")
    expect(page.locator(".toast-body").first).to_contain_text("for instance: fork and knife")
    page.locator("#cards .back").click()
    expect(page.locator("#cards .card")).to_have_count(20)


def _vast(whole: bytes) -> bytes:
    header = b"IHDR" + (50_000).to_bytes(4, "big") * 2 + whole[24:29]
    return whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:]


def damaged(folder: Path) -> dict[Path, str]:
    """Files that look like pictures and are none, with what is to be said of them."""
    Image.effect_noise((300, 200), 80).save(folder / "whole.png")
    whole = (folder / "whole.png").read_bytes()
    files = {
        "text.png": (b"this is no picture", "not a picture"),
        "empty.png": (b"", "0 bytes"),
        "cut.png": (whole[:2000], "cut short"),
        "vast.png": (_vast(whole), "megapixels"),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "not a picture"),
        "%2e%2e%2fname": (b"nothing", "not a picture"),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {folder / name: words for name, (_, words) in files.items()}


def test_bad_uploads_are_refused_in_plain_words_and_good_ones_shown(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    photo = page.locator("#stage .photo")
    former = photo.get_attribute("src") or ""
    for path, words in damaged(tmp_path).items():
        upload(page, path)
        toast = page.locator(".toast-body").first
        expect(toast).to_contain_text(words)
        page.locator(".toast-close").first.click()
        expect(page.locator(".toast-body")).to_have_count(0)
        assert photo.get_attribute("src") == former, "the former picture stays"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.linear_gradient("L").resize((320, 160)).convert("RGB").save(tmp_path / "turned.jpg", exif=exif)
    upload(page, tmp_path / "turned.jpg")
    expect(photo).not_to_have_attribute("src", former)
    assert (
        page.evaluate(
            "(() => { const p = document.querySelector('#stage .photo');"
            " return p.naturalWidth / p.naturalHeight })()"
        )
        == 0.5
    )
    box = photo.bounding_box()
    assert box and abs(box["width"] / box["height"] - 0.5) < 0.02, "upright, and not stretched"
    assert said(page, "#baseline")
    assert page.locator("#cards .card").count() > 0


GIVE = """([kind, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const bag = new DataTransfer();
  bag.items.add(new File([bytes], 'mine.png', { type: 'image/png' }));
  const how = { bubbles: true, cancelable: true, dataTransfer: bag, clipboardData: bag };
  if (kind === 'paste') document.body.dispatchEvent(new ClipboardEvent('paste', how));
  else document.querySelector('#stage .cover').dispatchEvent(new DragEvent('drop', how));
}"""


def test_pictures_pasted_and_dropped_are_opened(visit: Visit, tmp_path: Path) -> None:
    page = visit()
    photo = page.locator("#stage .photo")
    for seed, kind in enumerate(("paste", "drop")):
        former = photo.get_attribute("src") or ""
        draw(seed, "ordinary", size=224).image.save(tmp_path / "mine.png")
        page.evaluate(GIVE, [kind, base64.b64encode((tmp_path / "mine.png").read_bytes()).decode()])
        expect(photo).not_to_have_attribute("src", former)
        assert said(page, "#baseline")


def test_two_visitors_see_only_their_own(visit: Visit) -> None:
    one, two = visit(), visit()
    one.locator("#shelf [data-with*=farmyard]").click()
    expect(one.locator("#shelf [data-with*=farmyard]")).to_have_attribute("aria-pressed", "true")
    one.locator("#cards .put").first.click()
    expect(one.locator("#bench .row")).to_have_count(1)
    brush(two, (1, 1))
    expect(heading(two)).to_have_text("Patch 2, 2")
    expect(two.locator("#shelf [data-with*=phantom-fork]")).to_have_attribute("aria-pressed", "true")
    expect(two.locator("#bench .row")).to_have_count(0)
    expect(heading(one)).to_have_text("Whole picture")
    assert marked(one) == ""
    photos = {page.locator("#stage .photo").get_attribute("src") for page in (one, two)}
    assert len(photos) == 2


SHIFTS = """() => new Promise((done) => {
  const moved = [];
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      for (const { node, previousRect: was, currentRect: is } of entry.sources) {
        const part = node?.closest?.('#stage, #cards')?.id;
        if (part && was.height && is.height && Math.abs(was.y - is.y) > 4) moved.push([part, was.y, is.y]);
      }
    }
  }).observe({ type: 'layout-shift', buffered: true });
  setTimeout(() => done(moved), 300);
})"""


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("workspace-light", {}),
        ("workspace-dark", {"color_scheme": "dark"}),
        ("workspace-phone", {"viewport": {"width": 390, "height": 844}, "has_touch": True}),
        ("workspace-wide", {"viewport": {"width": 1920, "height": 1080}}),
    ],
)
def test_it_fits_the_screen(visit: Visit, shoot: Shoot, name: str, how: dict) -> None:
    page = visit(**how)
    assert page.evaluate(SHIFTS) == [], "the picture and the cards come where their place was kept"
    page.locator("#cards .choose").first.click()
    expect(page.locator("#cards .card.chosen")).to_have_count(1)
    if "has_touch" in how:
        page.touchscreen.tap(*middle(page, (4, 4)))
    else:
        brush(page, (4, 4))
    expect(heading(page)).to_have_text("Patch 5, 5")
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, "nothing sticks out to the side"
    outside = """() => [...document.querySelectorAll('#picture-column *, #neurons-column *')].filter((e) => {
      const column = e.closest('.column').getBoundingClientRect(), box = e.getBoundingClientRect();
      return box.width && (box.right > column.right + 1 || box.left < column.left - 1);
    }).map((e) => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(outside) == []
    for part in ("#stage .photo", "#stage .tools", "#upload"):
        box, column = page.locator(part).bounding_box(), page.locator("#picture-column").bounding_box()
        assert box and column and box["y"] + box["height"] <= column["y"] + column["height"] + 1, part
    shoot(page, name)


def test_a_finger_brushes_on_the_picture(visit: Visit) -> None:
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    places = [middle(page, (6, col)) for col in (3, 5, 8)]
    finger = page.context.new_cdp_session(page)
    before = page.evaluate("scrollY")
    for kind, (x, y) in zip(("touchStart", "touchMove", "touchMove"), places, strict=True):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(heading(page)).to_have_text("6 patches")
    assert page.evaluate("scrollY") == before, "the page stays where it is while the finger is on the picture"
