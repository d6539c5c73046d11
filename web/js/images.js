// SPDX-License-Identifier: Apache-2.0
/** Pictures that the user adds: made small enough, and of a kind that servers read. */

/** What servers take at once (`Limits` of lmd), and the longest side that is worth sending. */
export const kMaxImages = 16;
const kMaxSide = 2048;
const kMaxBytes = 4 << 20;
const kAccepted = ["image/jpeg", "image/png", "image/webp"];

export const isImage = (file) => file.type.startsWith("image/");

function asDataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** A data URL of JPEG, PNG or WebP. \throws when the browser cannot read the file. */
export async function readImage(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, kMaxSide / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && kAccepted.includes(file.type) && file.size <= kMaxBytes) return asDataUrl(file);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  // Drawings and screenshots stay sharp as PNG; photographs would be large.
  const png = file.type === "image/jpeg" ? null : canvas.toDataURL("image/png");
  return png && png.length < kMaxBytes ? png : canvas.toDataURL("image/jpeg", 0.9);
}
