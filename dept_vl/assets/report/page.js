// Sorts cards; everything else of the page works without. #sort=best in the address chooses an order.
for (const box of document.querySelectorAll(".gallery")) {
  const grid = box.querySelector(".grid"), choice = box.querySelector("select");
  const sort = () => {
    const sign = { worst: 1, best: -1, row: 0 }[choice.value];
    const by = (card) => Number(card.dataset.order);
    grid.append(...[...grid.children].sort(
      (a, b) => sign * (by(a) - by(b)) || a.dataset.row - b.dataset.row));
  };
  box.querySelector(".sort").hidden = false;
  choice.addEventListener("change", sort);
  const wanted = new URLSearchParams(location.hash.slice(1)).get("sort");
  if ([...choice.options].some((option) => option.value === wanted)) { choice.value = wanted; sort(); }
}
