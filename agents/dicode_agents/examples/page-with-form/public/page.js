const bar = document.querySelector("#progress");

document.addEventListener("dicode:event", ({ detail }) => {
  if (detail.type !== "progress") return;
  bar.hidden = false;
  bar.max = detail.total;
  bar.value = detail.done;
});

for (const end of ["dicode:finish", "dicode:error"]) {
  document.addEventListener(end, () => (bar.hidden = true));
}
