// What is wider than the page scrolls by itself; the keyboard has to reach it.
for (const box of document.querySelectorAll("pre, .table-wrapper, .math-block"))
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
