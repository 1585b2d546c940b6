"use strict";
// Slider, window and outline of each nodule. Without this script the page shows the planes through the point.
for (const nodule of document.querySelectorAll(".nodule")) {
  const data = JSON.parse(nodule.querySelector("script").textContent);
  const slider = nodule.querySelector("input[type=range]");
  const outline = nodule.querySelector("input[type=checkbox]");
  const place = nodule.querySelector(".place");
  const start = slider ? slider.defaultValue - 1 : 0;

  const where = k => {
    const mm = data.levels[k].mm;
    const away = mm ? `${Math.abs(mm).toFixed(1)} mm ${mm > 0 ? "above" : "below"} the point` : "through the point";
    return `${k + 1} of ${data.levels.length}, ${away}`;
  };
  const draw = (plane, k, chosen) => {
    const figure = nodule.querySelector(`[data-plane=${plane}]`);
    const picture = data.planes[plane];
    const path = (picture.outlines[k] && (!outline || outline.checked)) ? picture.outlines[k] : "";
    const image = figure.querySelector("img");
    image.src = `data:image/png;base64,${picture.slices[chosen.value][k]}`;
    image.alt = `${plane[0].toUpperCase()}${plane.slice(1)} plane of nodule ${data.name}, `
      + (plane === "axial" && slider ? `slice ${where(k)}, ` : "through the point, ")
      + `${chosen.nextElementSibling.textContent.toLowerCase()} window${path ? ", with the mask's outline" : ""}`;
    figure.querySelector("path")?.setAttribute("d", path);
  };
  const show = () => {
    const chosen = nodule.querySelector("input[type=radio]:checked");
    const k = slider ? slider.value - 1 : start;
    draw("axial", k, chosen);
    draw("coronal", 0, chosen);
    draw("sagittal", 0, chosen);
    for (const line of nodule.querySelectorAll(".line")) line.style.top = `${data.levels[k].down}%`;
    if (slider) {
      place.textContent = where(k);
      slider.setAttribute("aria-valuetext", `slice ${where(k)}`);
    }
  };
  for (const part of nodule.querySelectorAll(".controls, .slider")) part.hidden = false;
  nodule.addEventListener("input", show);
  show();
}
