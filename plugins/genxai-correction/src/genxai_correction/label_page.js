"use strict";
const images = Array.from(document.querySelectorAll("#images .image"));
const count = document.getElementById("count");
let saved = true;

const broken = (image) => image.getAttribute("aria-pressed") === "true";

function show() {
  const bad = images.filter(broken).length;
  count.textContent = bad + " artifact, " + (images.length - bad) + " normal, of " + images.length;
}

function toggle(image) {
  image.setAttribute("aria-pressed", String(!broken(image)));
  saved = false;
  show();
}

/* What is downloaded: a line for every image that is shown, in the form that dataset/artifact-labels reads. */
function labelsCsv() {
  const rows = images.map((image) => image.dataset.index + "," + (broken(image) ? "artifact" : "normal"));
  return ["index,label"].concat(rows).join("\n") + "\n";
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([labelsCsv()], { type: "text/csv" }));
  link.download = "labels.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  saved = true;
}

function columns() {
  const top = images[0].offsetTop;
  const second = images.findIndex((image) => image.offsetTop > top);
  return second < 0 ? images.length : second;
}

document.getElementById("images").addEventListener("click", (event) => {
  const image = event.target.closest(".image");
  if (image) toggle(image);
});
document.getElementById("download").addEventListener("click", download);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "d" || event.key === "D") return download();
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const at = images.indexOf(document.activeElement);
  const next = images[at < 0 ? 0 : at + steps[event.key]];
  if (next) next.focus();
});
window.addEventListener("beforeunload", (event) => {
  if (!saved) event.preventDefault();
});
show();
