"""What keeps a browser idle while nothing happens on the page: a script at the page's own end."""

CALM = b"""
<script>
(() => {
  const frame = window.requestAnimationFrame.bind(window);
  const cancel = window.cancelAnimationFrame.bind(window);
  let lately = performance.now();
  const happens = () => { lately = performance.now(); };
  new MutationObserver(happens).observe(document,
    {subtree: true, childList: true, attributes: true, characterData: true});
  for (const kind of ['pointermove', 'pointerdown', 'keydown', 'wheel', 'scroll', 'resize'])
    addEventListener(kind, happens, {capture: true, passive: true});
  window.requestAnimationFrame = (draw) => performance.now() - lately < 2000
    ? frame(draw) : -setTimeout(() => draw(performance.now()), 500);
  window.cancelAnimationFrame = (id) => id < 0 ? clearTimeout(-id) : cancel(id);
})();
</script>
"""
"""Where nothing has happened for two seconds, frames come twice a second.

Every page of gradio 6.31 draws frames for ever: the clock of its first wheel is not stopped when
the wheel goes. That took 5 to 7 % of a core of a browser that nobody touches. gradio takes hold of
`requestAnimationFrame` as it is loaded, so this must stand in the page before it: its own way of
adding scripts comes too late.
"""
