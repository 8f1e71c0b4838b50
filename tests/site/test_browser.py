"""The pages in a real Chromium, opened from disk: sorting, filtering, pictures, accessibility, no word of trouble."""

import shutil

import pytest

from conservbench.site import write_report, write_site

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: browser)")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed (extra: browser)")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: install Debian's package chromium")

HOSTILE = "<img src=x onerror=alert(1)>"

PAGES = ["index.html", "models/net-direct.html", "protocols/nve.html", "networks/net-gradient.html", "report.html"]

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def site(cells, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    write_site(cells, out)
    write_report(cells, out / "report.html")
    return out


@pytest.fixture(scope="module")
def browser():
    # on a busy machine a page takes its time
    sync_api.expect.set_options(timeout=20_000)
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, site):
    """Open a page; what it says to the console, asks of the network or pops up fails the test at its end."""
    contexts, astray = [], []

    def opened(where, *, scheme="light", width=1280, **options):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: astray.append(f"{where}: {message.type}: {message.text}"))
        page.on("pageerror", lambda error: astray.append(f"{where}: {error}"))
        page.on("dialog", lambda dialog: (astray.append(f"{where}: dialog {dialog.message}"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else astray.append(request.url),
        )
        page.goto((site / where).as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert astray == []


def draw_all(page):
    """Scroll to every picture, as a reader would, and wait until it is drawn."""
    figures = page.locator("figure.plot")
    for place in range(figures.count()):
        figures.nth(place).scroll_into_view_if_needed()
        sync_api.expect(figures.nth(place)).to_have_attribute("data-drawn", "yes")


def column(page, table, place):
    return page.locator(f"{table} tbody tr > *:nth-child({place})").all_inner_texts()


def rows(page, table):
    return page.locator(f"{table} tbody tr").count()


def drawn_in(page):
    """Pictures without a curve or a point."""
    empty = "all => all.filter(one => !one.querySelector('.scatterlayer path')).map(one => one.id)"
    return page.eval_on_selector_all("figure.plot", empty)


@pytest.mark.slow  # axe reads every element
@pytest.mark.parametrize("where", PAGES)
def test_a_page_is_whole_accessible_and_fits(visit, where):
    """One visit for all that is asked of every page: it is the load of plotly.js that takes the time."""
    page = visit(where)
    draw_all(page)
    assert page.locator("figure.plot").count() >= 1
    assert drawn_in(page) == []
    # the numbers of two pictures stand for those of all: axe takes its time for each of their rows
    page.evaluate("document.querySelectorAll('details:not(.numbers)').forEach(one => { one.open = true; })")
    page.evaluate("[...document.querySelectorAll('.numbers')].slice(0, 2).forEach(one => { one.open = true; })")
    # style sheets are not to be fetched again: pages may connect to nothing
    results = axe.Axe().run(page, options={"preload": False})
    assert results.violations_count == 0, results.generate_report()
    page.emulate_media(color_scheme="dark")
    # nothing but colours depends on the theme
    results = axe.Axe().run(page, options={"preload": False, "runOnly": ["color-contrast"]})
    assert results.violations_count == 0, f"dark: {results.generate_report()}"
    page.set_viewport_size({"width": 390, "height": 900})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")


def test_tables_sort_by_value_with_the_missing_last(visit):
    page = visit("protocols/nve.html")
    head = page.locator("#table-1 thead th").nth(2)
    button = head.locator("[role=button]")
    assert head.get_attribute("aria-sort") is None
    button.focus()
    page.keyboard.press("Enter")
    sync_api.expect(head).to_have_attribute("aria-sort", "ascending")
    up = column(page, "#table-1", 3)
    assert [each.split()[0] for each in up] == ["-40.0", "0.00", "0.01", "0.3", "5.00", "5.00", "13", "exploded"]
    page.keyboard.press("Enter")
    sync_api.expect(head).to_have_attribute("aria-sort", "descending")
    down = column(page, "#table-1", 3)
    assert [each.split()[0] for each in down] == ["13", "5.00", "5.00", "0.3", "0.01", "0.00", "-40.0", "exploded"]


def test_tables_filter(visit):
    page = visit("protocols/nve.html")
    assert rows(page, "#table-1") == 8
    page.get_by_label("Filter rows:").first.fill("net-direct")
    sync_api.expect(page.locator("#table-1 tbody tr")).to_have_count(2)
    # a phrase is one: no row holds it, though some hold each of its words
    page.get_by_label("Filter rows:").first.fill("direct net")
    sync_api.expect(page.locator("#table-1 tbody")).to_have_text("No row holds this text.")
    page.get_by_label("Filter rows:").first.fill("net-direct.toml -p nve -s si-liquid-64")
    sync_api.expect(page.locator("#table-1 tbody tr")).to_have_count(1)
    assert "net-direct" in column(page, "#table-1", 1)[0]
    sync_api.expect(page.locator(".dt-info").first).to_contain_text("1 rows")


def test_models_of_a_picture_are_chosen(visit):
    page = visit("protocols/nve.html")
    draw_all(page)

    def shown(name):
        return page.locator("#figure-1").evaluate(
            "(one, name) => one.querySelector('.canvas').data.some(t => t.visible && t.meta.model === name)", name
        )

    assert shown("net-direct")
    assert not shown("known")
    page.get_by_role("checkbox", name="net-direct").uncheck()
    page.get_by_role("checkbox", name="known").check()
    assert not shown("net-direct")
    assert shown("known")
    # a system with a control alone shows it though no control is chosen
    page.get_by_role("checkbox", name="known").uncheck()
    last = page.locator("figure.plot").last
    assert last.evaluate("one => one.querySelector('.canvas').data.some(t => t.visible && t.meta.model === 'known')")


def test_a_line_of_a_picture_is_chosen_and_its_numbers_are_read(visit):
    page = visit("protocols/nve.html")
    draw_all(page)
    figure = page.locator("#figure-1")
    sync_api.expect(figure.get_by_label("Line:")).to_have_value("=1 fs")
    figure.get_by_label("Line:").select_option("1 fs")
    figure.get_by_text("Numbers").click()
    # the table is made when the details open, a moment after the click
    sync_api.expect(figure.locator("details.numbers tbody tr").first).to_be_visible()
    names = set(figure.locator("details.numbers tbody th").all_inner_texts())
    assert names == {f"{model}, 1 fs" for model in ("net-gradient", "net-direct", "net-mts8", HOSTILE)}
    # the second point of the direct forces: 0.02 ps at 13 meV/atom/ps, and its band of 1 to either side
    cells = figure.locator("tr", has_text="net-direct").nth(1).locator("td").all_inner_texts()
    assert cells == ["0.02", "0.26", "-0.74", "1.26"]


def test_names_with_html_are_shown_as_text(visit):
    page = visit("index.html")
    assert page.get_by_role("link", name=HOSTILE).count() > 0
    assert page.locator("img").count() == 0
    page.get_by_role("link", name=HOSTILE).first.click()
    sync_api.expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    draw_all(page)
    page = visit("protocols/nve.html")
    page.locator("#figure-1").scroll_into_view_if_needed()
    sync_api.expect(page.locator("#figure-1 .legendtext", has_text=HOSTILE)).to_have_count(1)


def test_theme_is_chosen_and_remembered(visit):
    page = visit("models/net-direct.html", scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Light theme").click()
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    assert page.evaluate(background) == light


def test_the_command_is_there_for_the_keyboard(visit):
    page = visit("protocols/nve.html")
    row = page.locator("#table-1 tbody tr", has_text="net-direct").first
    row.locator("summary").first.focus()
    page.keyboard.press("Enter")
    code = page.locator("#table-1 details.how[open] code")
    sync_api.expect(code).to_contain_text("conservbench run -m path/to/net-direct.toml -p nve -s si-64 --tier standard")
    page.locator("#table-1 details.how[open]").get_by_role("button").click()


def test_first_tab_skips_to_the_content(visit):
    page = visit("index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_tables_and_commands_are_read_without_scripts(visit):
    page = visit("protocols/nve.html", java_script_enabled=False)
    assert rows(page, "#table-1") == 8
    page.locator("#table-1 details.how summary").first.click()
    sync_api.expect(page.locator("#table-1 details.how[open] code")).to_contain_text("conservbench run")
