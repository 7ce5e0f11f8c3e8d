() => {
  // The picture slider follows the arrow keys too: gradio's own listens to pointers only.
  const reach = () => {
    document.querySelectorAll('[id^="tp-pair-"], [id^="tp-drawn-"]').forEach((block) => {
      const handle = block.querySelector('.outer, [role="slider"]');
      if (!handle || handle.dataset.reached) return;
      handle.dataset.reached = '1';
      handle.tabIndex = 0;
      handle.setAttribute('role', 'slider');
      handle.setAttribute('aria-label', 'left: what the method kept; right: the full picture');
      handle.addEventListener('keydown', (event) => {
        const by = { ArrowLeft: -0.1, ArrowRight: 0.1 }[event.key];
        if (!by) return;
        event.preventDefault();
        const frame = block.querySelector('.slider-wrap, .image-container, img').getBoundingClientRect();
        const here = handle.getBoundingClientRect();
        const from = here.left + here.width / 2;
        const to = Math.min(frame.right - 2, Math.max(frame.left + 2, from + by * frame.width));
        const at = { bubbles: true, clientY: here.top + here.height / 2, pointerId: 1, view: window };
        handle.dispatchEvent(new MouseEvent('mousedown', { ...at, clientX: from }));
        window.dispatchEvent(new MouseEvent('mousemove', { ...at, clientX: to }));
        window.dispatchEvent(new MouseEvent('mouseup', { ...at, clientX: to }));
      });
    });
  };
  new MutationObserver(reach).observe(document.body, { childList: true, subtree: true });
  document.documentElement.lang = 'en';
}
