() => {
  document.documentElement.lang = 'en';
  // The picture slider follows the arrow keys too: gradio's own listens to pointers only.
  const reach = () => {
    document.querySelectorAll('#tp-examples .gallery-item:not([aria-label])').forEach((button, place) => {
      button.setAttribute('aria-label', `example ${place + 1}`);
    });
    document.querySelectorAll('[data-testid="imageslider-image"][alt=""]').forEach((image) => {
      image.alt = image.classList.contains('fixed') ? 'what the method kept' : 'the full picture';
    });
    document.querySelectorAll('[id^="tp-pair-"], [id^="tp-drawn-"]').forEach((block) => {
      const handle = block.querySelector('[data-testid="slider"]');
      if (!handle || handle.dataset.reached) return;
      handle.dataset.reached = '1';
      handle.tabIndex = 0;
      handle.setAttribute('role', 'slider');
      handle.setAttribute('aria-label', 'boundary between the full picture and what the method kept');
      handle.addEventListener('keydown', (event) => {
        const by = { ArrowLeft: -0.1, ArrowRight: 0.1 }[event.key];
        if (!by) return;
        event.preventDefault();
        const frame = handle.parentElement.getBoundingClientRect();
        const here = handle.getBoundingClientRect();
        const from = here.left;
        const to = Math.min(frame.right - 2, Math.max(frame.left + 2, from + by * frame.width));
        const send = (target, type, x) => target.dispatchEvent(new MouseEvent(type, {
          bubbles: true, cancelable: true, clientX: x, clientY: here.top + 5, view: window,
        }));
        send(handle, 'mousedown', from);
        send(window, 'mousemove', to);
        send(window, 'mouseup', to);
      });
    });
  };
  new MutationObserver(reach).observe(document.body, { childList: true, subtree: true });
}
