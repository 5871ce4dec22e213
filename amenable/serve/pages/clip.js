// A clip on a canvas, drawn from positions and played over and over (amenable/control/clip_pictures.py).

import { el } from "./elements.js";

const PAUSE = 0.4; // seconds between the end of a clip and its next start

// The canvas of a clip, given as JSON: {scene: {box, widths, fixed, marks, follow, fps}, frames}.
export function clip(text, label) {
  const { scene, frames } = JSON.parse(text);
  const canvas = el("canvas", { class: "clip", role: "img", "aria-label": label });
  const start = performance.now();
  let drawn = -1;
  function play(now) {
    if (!canvas.isConnected && drawn >= 0) return;
    const passed = ((now - start) / 1000) % (frames.length / scene.fps + PAUSE);
    const frame = Math.min(frames.length - 1, Math.max(0, Math.floor(passed * scene.fps)));
    const width = Math.round(canvas.clientWidth * devicePixelRatio);
    if (canvas.isConnected && width && (frame !== drawn || width !== canvas.width)) {
      draw(canvas, scene, frames[frame], width);
      canvas.dataset.frame = drawn = frame;
    }
    requestAnimationFrame(play);
  }
  requestAnimationFrame(play);
  return canvas;
}

function draw(canvas, scene, frame, width) {
  const [left, bottom, right, top] = scene.box;
  const scale = width / (right - left);
  const shift = scene.follow ? frame[0] - (left + right) / 2 : 0;
  canvas.width = width;
  canvas.height = Math.round(scale * (top - bottom));
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  const x = (value) => (value - shift - left) * scale;
  const y = (value) => (top - value) * scale;
  pen.lineCap = "round";
  const line = (points, thickness, colour) => {
    pen.strokeStyle = colour;
    pen.lineWidth = Math.max(1, thickness * scale);
    pen.beginPath();
    pen.moveTo(x(points[0]), y(points[1]));
    pen.lineTo(x(points[2]) + 0.01, y(points[3])); // a segment of no length is a dot
    pen.stroke();
  };
  const soft = style.getPropertyValue("--soft");
  for (const [x1, y1, x2, y2, thickness] of scene.fixed) line([x1, y1, x2, y2], thickness, soft);
  if (scene.follow) for (let metre = Math.floor(shift + left); metre <= shift + right; metre += 1) line([metre, 0, metre, -0.08], 0.02, soft);
  pen.fillStyle = soft;
  pen.font = `${0.45 * scale}px ${style.fontFamily}`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (const [markX, markY, text] of scene.marks) pen.fillText(text, x(markX), y(markY));
  const colours = [style.getPropertyValue("--accent"), style.color];
  scene.widths.forEach((thickness, n) => line(frame.slice(4 * n, 4 * n + 4), thickness, colours[n % 2]));
}
