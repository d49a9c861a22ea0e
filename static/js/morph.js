/* Live parts are changed in place instead of replaced: focus, hover, open details and bar transitions stay. Used for htmx's out-of-band swaps and for hx-swap="morph". */
(() => {
  "use strict";
  const KEPT_ATTRIBUTES = new Set(["open"]); // the browser's own, set by the person

  function sameKind(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || "") === (b.id || "");
  }

  function syncAttributes(from, to) {
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && !KEPT_ATTRIBUTES.has(name)) from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
  }

  function partner(parent, cursor, wanted) {
    if (!wanted.id) return cursor && sameKind(cursor, wanted) ? cursor : null;
    for (let node = cursor; node; node = node.nextSibling) if (node.id === wanted.id) return node;
    return null;
  }

  function syncChildren(from, to) {
    const kept = new Set([...to.childNodes].map((node) => node.id).filter(Boolean));
    let cursor = from.firstChild;
    for (const wanted of [...to.childNodes]) {
      const match = partner(from, cursor, wanted);
      // What went from before it is taken away first: an element that is moved loses the focus.
      while (match && cursor !== match && !kept.has(cursor.id)) {
        const next = cursor.nextSibling;
        cursor.remove();
        cursor = next;
      }
      if (!match) {
        from.insertBefore(wanted, cursor);
      } else {
        if (match === cursor) cursor = cursor.nextSibling;
        else from.insertBefore(match, cursor);
        morph(match, wanted);
      }
    }
    while (cursor) {
      const next = cursor.nextSibling;
      cursor.remove();
      cursor = next;
    }
  }

  /* Make `from` look like `to`, which is used up. */
  function morph(from, to) {
    if (!sameKind(from, to)) return from.replaceWith(to);
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    syncAttributes(from, to);
    syncChildren(from, to);
  }

  function update(target, fresh) {
    morph(target, fresh);
    htmx.process(target);
    target.dispatchEvent(new CustomEvent("gantry:updated", { bubbles: true }));
  }

  // hx-swap="morph" for answers to a request.
  htmx.defineExtension("gantry-morph", {
    isInlineSwap: (style) => style === "morph",
    handleSwap(style, target, fragment) {
      if (style !== "morph") return false;
      update(target, fragment.firstElementChild);
      return [target];
    },
  });

  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    const { target, fragment } = event.detail;
    const fresh = fragment.firstElementChild;
    if (!fresh || fresh.id !== target.id) return;
    event.detail.shouldSwap = false;
    update(target, fresh);
  });
})();
