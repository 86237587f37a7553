"use strict";
// What trials answered, image by image: unpacked when it is asked for, counted, and shown beside the images.
(() => {
  const { html } = report;

  // Numbers that were packed with zlib and base64; promised, since the browser inflates in the background.
  const inflated = async (text, Kind) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Kind(await new Response(stream).arrayBuffer());
  };
  // The classes that were chosen, counted from the right one: all 0 but for these, each after so many zeros.
  const tableOf = (group, counts, values, Kind) => {
    const table = new Kind(group.images * group.trials.length);
    let at = -1, next = 0;
    for (const zeros of counts) {
      at += zeros;
      if (zeros === 255) continue;
      at += 1;
      table[at] = values[next];
      next += 1;
    }
    return table;
  };
  const unpacked = new Map();
  const unpack = async (group) => {
    if (!unpacked.has(group)) {
      const Kind = group.bytes === 1 ? Uint8Array : Uint16Array;
      const [zeros, others] = group.guesses;
      const [labels, counts, values, places] = await Promise.all([inflated(group.labels, Kind), inflated(zeros, Uint8Array), inflated(others, Kind), group.places && inflated(group.places, Uint32Array)]);
      unpacked.set(group, { labels, table: tableOf(group, counts, values, Kind), places });
    }
    return unpacked.get(group);
  };

  // The answers of some trials that were asked about the same images: what each was, whether it was right, and the
  // places of an image; null where they are not in the page, or were asked about different ones.
  const answersOf = async (keys) => {
    const group = report.answers?.groups.find((g) => keys.every((key) => g.trials.includes(key)));
    if (!group || typeof DecompressionStream === "undefined") return null;
    const { labels, table, places } = await unpack(group), columns = keys.map((key) => group.trials.indexOf(key));
    const off = (image, side) => table[image * group.trials.length + columns[side]]; // counted from the right class
    return {
      group,
      off,
      label: (image) => labels[image],
      guess: (image, side) => (labels[image] + off(image, side)) % group.classes.length,
      where: (image) => (places ? `training image ${places[image]}` : `validation image ${image}`),
      number: (image) => (places ? places[image] : image),
    };
  };

  const matrixOf = (answers) => {
    const { group } = answers, matrix = group.classes.map(() => group.classes.map(() => 0));
    for (let i = 0; i < group.images; i += 1) matrix[answers.label(i)][answers.guess(i, 0)] += 1;
    return matrix;
  };

  const sheets = new Map();
  const sheet = (source) => {
    if (!sheets.has(source)) {
      const image = new Image();
      image.src = source;
      sheets.set(source, image.decode().then(() => image));
    }
    return sheets.get(source);
  };

  // A list of images with words below each: { image, words: [[text, class], ...] }; those that the page does not hold
  // have their number.
  const tiles = (list, answers, shown) => {
    const { pictures } = answers.group, canvases = [];
    list.replaceChildren(...shown.map(({ image, words }) => {
      const at = pictures ? pictures.images.indexOf(image) : -1, where = answers.where(image);
      let seen = html("span", { class: "unseen" }, `no. ${answers.number(image)}`);
      if (at >= 0) {
        const [w, h] = pictures.size ?? pictures.sizes[at];
        seen = html("canvas", { width: w, height: h, role: "img", "aria-label": `${where}: ${words.map(([text]) => text).join(", ")}` });
        canvases.push([seen, (at % pictures.across) * pictures.cell, Math.floor(at / pictures.across) * pictures.cell, w, h]);
      }
      return html("li", { title: where }, seen, ...words.map(([text, kind]) => html("span", { class: kind || null }, text)));
    }));
    if (canvases.length) void sheet(pictures.source).then((source) => canvases.forEach(([c, x, y, w, h]) => c.getContext("2d").drawImage(source, x, y, w, h, 0, 0, w, h)));
  };

  Object.assign(report, { answersOf, matrixOf, tiles });
})();
