// The bench without a kernel: menus choose among pictures and players that lie ready in the page.
addEventListener('DOMContentLoaded', () => {
  for (const bench of document.querySelectorAll('.bench')) {
    const states = JSON.parse(bench.querySelector('script').textContent);
    const menus = [...bench.querySelectorAll('select')];
    const show = () => {
      const {image, players} = states[menus.map(menu => menu.value).join('|')];
      bench.querySelector('.picture').innerHTML = image;
      bench.querySelector('.sound').innerHTML = players;
    };
    menus.forEach(menu => menu.addEventListener('change', show));
    show(); // a browser may have kept older choices
  }
});
