"""The page: six tabs from left to right, and its look; what it costs while nothing happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import gradio as gr

from customize.studio.studio import Studio
from customize.studio.tabs import choose, compare, mix, pairs, recipe, train

TABS: tuple[tuple[str, Callable[[Studio], None]], ...] = (
    ("Pairs", pairs.build),
    ("Recipe", recipe.build),
    ("Train", train.build),
    ("Compare", compare.build),
    ("Mix", mix.build),
    ("Choose", choose.build),
)

THEME = gr.themes.Base(
    primary_hue="teal",
    text_size=gr.themes.sizes.text_md,
    # fonts of the machine: nothing is fetched from elsewhere
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    button_primary_background_fill="*primary_700",  # dark enough for white letters
    button_primary_background_fill_hover="*primary_800",
    button_primary_text_color="white",
)

CSS = """
.gradio-container { width: 100% !important; max-width: 1280px !important; margin: auto; }
.gradio-container { --body-text-color-subdued: #55555c; --block-info-text-color: #55555c;
  --input-placeholder-color: #55555c; }
.dark .gradio-container, .gradio-container.dark { --body-text-color-subdued: #b4b4bc;
  --block-info-text-color: #b4b4bc; --input-placeholder-color: #b4b4bc; }
.gradio-container, .gradio-container * { --text-xxs: 12px; --text-xs: 12px; --text-sm: 14px; }
.gallery { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(45%, 220px), 1fr)); }
.gallery figure, figure { margin: 0; }
figure img, .before-after img { width: 100%; height: auto; display: block; border-radius: 4px;
  image-rendering: auto; background: #8881; }
#train-preview figure img { max-width: 960px; }
figcaption { font-size: 14px; padding: 4px 0; overflow-wrap: anywhere; }
.before-after { position: relative; max-width: 512px; }
.before-after .over { position: absolute; top: 0; left: 0;
  clip-path: inset(0 0 0 var(--cut)); }
.before-after label { display: flex; gap: 8px; align-items: center; padding: 6px 0; }
.before-after input { flex: 1; }
.faults { margin: 0; padding-left: 18px; }
.faults .error strong, .bad { color: #b00020; }
.faults .warning strong { color: #8a5a00; }
.good { color: #00695c; }
.dark .faults .error strong, .dark .bad { color: #ff8a80; }
.dark .faults .warning strong { color: #ffcc66; }
.dark .good { color: #80cbc4; }
.place { opacity: .75; overflow-wrap: anywhere; }
.state { font-weight: 600; }
progress { width: 100%; height: 12px; accent-color: #00897b; }
.curve { width: 100%; max-width: 640px; height: auto; }
.curve polyline { fill: none; stroke: #00897b; stroke-width: 2; }
.curve line { stroke: currentColor; opacity: .3; }
.wide { overflow-x: auto; }
.wide table { border-collapse: collapse; font-size: 14px; }
.wide td, .wide th { padding: 4px 10px; border-bottom: 1px solid #8884; text-align: left; }
pre { font-size: 12px; overflow-x: auto; white-space: pre-wrap; }
.pair { padding: 8px 0; border-top: 1px solid #8884; }
.pair .gallery { grid-template-columns: 1fr 1fr; }
:focus-visible { outline: 3px solid #00897b !important; outline-offset: 2px; }
"""

KEYS = """
<script>
document.addEventListener('keydown', (event) => {
  const field = event.target.closest('input, textarea, [contenteditable], select');
  if (field || event.ctrlKey || event.metaKey || event.altKey) return;
  const name = {'1': 'first', '2': 'second', '=': 'tie', 'x': 'neither'}[event.key];
  const button = name && document.getElementById('choose-' + name);
  if (button && button.offsetParent !== null && !button.disabled) button.click();
});
</script>
"""
"""1, 2, = and x choose, wherever on the tab one is but in a field."""

LOOK_AGAIN = 0.05
"""Seconds between two looks of gradio's queue for work; its own millisecond took 5 % of a core."""


def build_page(studio: Studio) -> gr.Blocks:
    """Return the page of a project, not yet served; nothing asks for it but a browser."""
    with gr.Blocks(
        title="customize studio", analytics_enabled=False, delete_cache=(600, 3600)
    ) as page:
        gr.Markdown("# customize studio")
        with gr.Tabs():
            for number, (title, build) in enumerate(TABS):
                with gr.Tab(title, elem_id=f"tab-{title.lower()}") as tab:
                    build(replace(studio, tab=tab, page=None if number else page))
    for event in page.fns.values():
        event.api_visibility = "undocumented"  # how to call each from programs was half of the page
    page.queue(default_concurrency_limit=4, max_size=64)
    page._queue.sleep_when_free = LOOK_AGAIN
    return page
